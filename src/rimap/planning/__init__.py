"""Which protocol measures a relaxation time best in a scan time, and what a protocol can measure."""
