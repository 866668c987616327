"""What runs have come to: tables and pictures, from logs alone; nothing here can run one."""
