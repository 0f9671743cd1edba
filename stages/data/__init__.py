"""From files to blocks of tokens: sources, cleaning, records, tokenizers, packing; and the starter world."""
