"""The label statistics of a data set: counts, published counts beside them, figures and a report."""
