"""Steps that frameworks define themselves: agents, tools, chains, hand-offs."""
