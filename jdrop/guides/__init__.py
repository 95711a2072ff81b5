"""Coming from another library, in 20 lines each; exported models; and runs that can be repeated."""
