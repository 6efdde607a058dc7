"""Testing rules, memlint's and others', on cases written as Markdown."""
