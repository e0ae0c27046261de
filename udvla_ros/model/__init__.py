"""The Emu3 decoder under UD-VLA's attention masks, and the bundle it is stored in."""
