"""Crypto venues through the unmodified ccxt.pro classes: Bybit V5 for trading, any other class for reading only."""
