"""Display of values: amounts, times and what-if results, as pages and reports show them."""
