"""MiniEmoSet: images drawn by code from a seed, in EmoSet's layout, with EmoSet's attribute names."""
