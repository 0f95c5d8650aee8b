"""Keys and values beside or in front of the text, from the sites to the encoder behind them.

Others take `find_sites`, `attach` and its handle, `PrefixEncoder`, gates, starting points and the
kinds of prefix attention.
It imports `model`.
"""
