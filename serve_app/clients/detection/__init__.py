"""Detection as a program asks for it: one class a protocol, the same answers from each."""
