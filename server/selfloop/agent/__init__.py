"""The agent: a conversation, its turns, its tools, and what the model is shown. It knows no editor and no protocol."""
