"""What the notebooks become: executed copies, HTML, and the book with its slider and its reference."""
