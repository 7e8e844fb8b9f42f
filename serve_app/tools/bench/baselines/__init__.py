"""What the service is compared with, each started as a process: servers, a gateway, a loop; and the service itself."""
