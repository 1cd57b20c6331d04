from keras_sasa.profile.published import main

if __name__ == "__main__":
    main()
