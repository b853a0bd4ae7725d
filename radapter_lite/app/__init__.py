"""The page of `radapter-lite app`: an image and class names of the visitor's own, and α between them.

uploads.py    what a visitor gives, checked: an image, class names
page.py       the widgets
server.py     Voilà, which serves them without code in sight; template/ is its page
"""
