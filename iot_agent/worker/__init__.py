"""What runs in a child process, one step at a time: keys, certificates, the network. A crash here costs one attempt."""
