"""The paper's tables on MiniEmoSet: which rows they have, and the report of what was measured."""
