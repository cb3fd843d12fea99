"""From images to descriptors, and from descriptors to CMC and mAP."""
