"""The figures, by subject; `plotting_utils` is their front door."""
