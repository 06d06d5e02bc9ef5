"""The policy's parts: what it sees and reads, its recurrent cells, the agent that it is part of."""
