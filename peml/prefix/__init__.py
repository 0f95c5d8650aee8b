"""Keys and values in front of the text, from the sites to the encoder behind them.

Others take `find_sites`, `attach` and its handle, `PrefixEncoder`, gates and starting points.
It imports `model`.
"""
