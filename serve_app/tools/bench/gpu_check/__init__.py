"""What a machine's GPU makes of the detection tracks: what is there, which engines run, how right and how fast."""
