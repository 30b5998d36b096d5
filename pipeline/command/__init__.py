"""The commands of ``superneurons``, a file for each group of them."""
