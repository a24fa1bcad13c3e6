"""What comes by the inbox: what operators, clients and other runs ask for."""
