"""Kits that check a plug-in of each kind, for us and for third parties."""
