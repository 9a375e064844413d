"""Tokenizers that others made: their tokenizer.json, control tokens, roles, and chat templates in Jinja."""
