"""The paper on MiniEmoSet: which commands, which rows, and the tables that they end in."""
