"""What setup and fleet share: the way to AWS, errors and progress, lists of serials, X.509, what an operator orders."""
