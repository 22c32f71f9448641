"""What every store owes, by verb; put together in `steprelay.testing.store_suite`."""
