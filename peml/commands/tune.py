"""`peml tune`: `prefixnas tune`, for those who look for it beside `peml train`."""

from prefixnas.commands.tune import HELP as HELP
from prefixnas.commands.tune import main as main
from prefixnas.commands.tune import parser as parser
