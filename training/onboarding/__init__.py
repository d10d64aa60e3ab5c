"""Write the files of a new source or model from a sample of its data, and remove them again.

The sample is a Parquet or CSV file with weeks of rows. What is written is a guess: its comments name the figures that
it was made from. Nothing here overwrites a file.
"""
