"""Whether the tests notice changes of the code: mutation testing, its record, and reasons for what is not noticed."""
