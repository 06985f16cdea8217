"""From text files to token shards on disk. No torch here."""
