"""What two experiments share."""
