"""Real TorchServe on this machine: started in a private folder, waited for, drained and stopped."""
