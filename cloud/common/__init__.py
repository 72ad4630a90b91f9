"""What setup and fleet share: the connection to AWS, errors, progress, lists of serials, X.509, operators' orders."""
