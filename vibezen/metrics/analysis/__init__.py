"""Questions about how numbers move: one range against another, trends, and what stands out."""
