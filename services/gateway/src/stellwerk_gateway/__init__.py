"""The gateway: REST and Server-Sent Events in front of the bus; stateless."""
