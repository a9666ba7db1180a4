"""Those who run in a process of their own: another environment, or a setting that must stand before torch loads."""
