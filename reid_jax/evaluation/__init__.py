"""From images to descriptors, and from descriptors to CMC, mAP and pictures."""
