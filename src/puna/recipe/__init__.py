"""The recipe: Figure 4 from stages."""
