"""Pretraining data (§2.1): sources to clean, audited pages, then token shards."""

from puna.pretraining_data.shards import ShardConfig, tokenize
from puna.pretraining_data.sources import SourceConfig
from puna.pretraining_data.stage import DataConfig, build_corpus

__all__ = ["DataConfig", "ShardConfig", "SourceConfig", "build_corpus", "tokenize"]
