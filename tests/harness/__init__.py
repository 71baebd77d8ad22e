"""What the tests of a whole engine share: private engines, their images, and what they may leak."""
