"""Records to tables, any time after the trials wrote them; neither the images nor Ray are needed."""
