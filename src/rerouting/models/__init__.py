"""Models: loading, block lookup, hidden states, adapters, merging, generation."""

import logging

# bitsandbytes, where it is installed, comes in with PEFT and advises to install another package
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
