"""The root filesystem as a tree of entries, and its images: ext2, cpio, tar."""
