"""Private parts of libraries that serving needs: one module per library, with a test that fails when an upgrade moves
one of them."""
