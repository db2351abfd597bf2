"""The agent's tools: names and parameters are part of the contract with every stored conversation."""
