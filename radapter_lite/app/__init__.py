"""The page of `radapter-lite app`: uploads checked, the widgets, and Voilà, which serves them without code in sight."""
