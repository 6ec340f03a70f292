"""Records to tables and pictures, any time after the trials wrote them; without Ray. Only `maps` needs the images."""
