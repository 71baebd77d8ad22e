"""What the commands on images share: pull, save, prune, signing, manifest lists."""
