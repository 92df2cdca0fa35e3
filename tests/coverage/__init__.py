"""Which lines the tests reach: of the crate and the binding through Python, of the package and of the specification."""
